"""What is measured, in which order, and what the numbers say. Pure: it neither runs fio nor touches a host."""
