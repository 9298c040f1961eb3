"""Tests of Apache Beam's part."""
