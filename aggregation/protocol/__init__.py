"""What all roles check alike: messages, plans, cohorts. No secrets."""
