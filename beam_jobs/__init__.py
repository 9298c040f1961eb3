"""Apache Beam's part of Canopy: an archive to records, and records to scores."""
