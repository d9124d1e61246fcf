"""Running a stage: shard by shard, resumable, in this process or on a cluster, with accounts."""
