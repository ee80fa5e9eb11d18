"""The vhost-user targets behind one interface."""
