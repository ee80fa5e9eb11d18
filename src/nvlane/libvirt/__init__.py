"""The same devices as domain XML: what libvirt knows first-class, the rest through `qemu:commandline`; all of it pure.

`edit.give` changes a domain's XML for one lane and says what it added; `edit.take` takes that away again; `diff` shows
both; `live` has the fragments for a running domain; `obstacles` says what libvirt will get in the way of.
"""
