"""One object a role: site, coordinator, aggregator, decryptor, custodian."""
