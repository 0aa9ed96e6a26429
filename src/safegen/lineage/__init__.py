"""What a source is: evidence from manifests, stamps, columns and digests."""
