"""From settings to the parties' kits: certificates, membership and removal."""
