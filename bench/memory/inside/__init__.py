"""Put on a gateway's path: sitecustomize.py, which Python imports when it starts."""
