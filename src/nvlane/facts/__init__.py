"""A frozen picture of the host: one module per subject, each with its values and the reader that fills them.

Readers take a `HostReader` and change nothing. `facts.host.read_facts` takes the whole picture; it serialises with
`model.codec` and can be planned against on another machine.
"""
