"""What has to be on a machine before a model can run: the model hub, seen from here."""
