"""Is this machine ready, and is a federation's folder as it should be?"""
