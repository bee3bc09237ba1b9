"""`python -m torch_ref` is the `gradtwin` command."""

from torch_ref.cli import main

raise SystemExit(main())
