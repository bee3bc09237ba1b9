"""Many cases, on one machine or many: shards, a ledger that outlives a crash, one merged report."""
