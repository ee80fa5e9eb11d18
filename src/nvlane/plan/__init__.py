"""What would be done: steps, refusals, the plan and its rendering. Everything here is pure."""
