"""`prepare`: pictures of one's own, as Parquet shards that reward actors read by index."""
