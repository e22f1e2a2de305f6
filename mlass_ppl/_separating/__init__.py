"""The inside of `separate`: signals in, evidence and priors, the loop over tokens."""
