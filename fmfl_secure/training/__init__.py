"""A round's training at a site, and what is made of the released sum."""
