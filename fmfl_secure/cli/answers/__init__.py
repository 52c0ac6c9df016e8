"""Answers of commands to programs, as types; `docs/answers.schema.json` is made from them.

They import nothing that computes, since every command line names them. A float that is not finite
is null in JSON: an epsilon without a bound, a figure that cannot be said.
"""
