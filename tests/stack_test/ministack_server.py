"""Starts MiniStack on the one address that it is given.

With USE_SSL it would also take port 443 where it may; nothing of ours needs that.
"""

from ministack import app

app._port_is_bindable = lambda host, port: False

if __name__ == "__main__":
    app.main()
