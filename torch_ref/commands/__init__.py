"""The commands of `gradtwin`: one file each, with what can be typed and what is then done."""
