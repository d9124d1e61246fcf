"""How a stage is run: shard by shard, resumable, here or on a cluster, with accounts."""
