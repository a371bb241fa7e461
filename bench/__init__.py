"""What Motte costs above its floors: run.sh starts it, README.md says what is measured."""
