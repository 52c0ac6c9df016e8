"""A population's durable budget: records, sums, anchors and exports."""
