"""Questions that sites may be asked instead of trained: a fixed, reviewed set, an entry each.

An entry (`base.Question`) says in public how long its vectors are and how large a unit's may be,
and at a site what a unit's vector is. The rest is the same of all: projection, noise and charge are
`privacy.queries`; the carriage is a round of secure aggregation with a purpose of its own.
"""
