"""What tests the tests: planted faults, and fuzz scripts."""
