//! A SCSI disk as a pure function.
