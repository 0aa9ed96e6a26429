"""An operator for Apache Airflow."""
