"""The lanes, one pure module each: a picture of the data path, its refusals, steps, devices and claims."""
