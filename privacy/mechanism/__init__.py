"""How one step is made private: plans, sampling, clipping, noise, and the gate before it."""
