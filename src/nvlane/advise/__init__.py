"""What each lane can do, and which of them suits: one matrix, and a ranking that rests on it and on the facts."""
