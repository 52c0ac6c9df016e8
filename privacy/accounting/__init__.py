"""Events, which say how a population's data were used, and what each of them costs."""
