"""The Grafana dashboards: rows of panels as data. See scripts/grafana_dashboards.py."""
