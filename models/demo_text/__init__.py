"""The texts that the demo model learns: written by rules, with names invented each time."""
