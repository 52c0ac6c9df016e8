"""What a party keeps on disk or in a database, and how failures to do so are told."""
