"""NetworkClient: connecting, TLS, proxies, reconnecting, the heartbeat.

client.py           NetworkClient: the documented API; one object for the life of the program
  inspecting.py     its methods that say what the connection is like
  receiving.py      those that receive raw bytes
  sending.py        those that send raw bytes
  messaging.py      those for messages and requests
  deadline.py       deadline(): one time limit for a block of calls
stats.py            its counters
tcp_info.py         what the kernel knows of a connection
client_link.py      what connect(), disconnect() and abort() do
  connecting.py     one connect(): its attempts, the waits between them, and how another task ends it
    attempt.py      one attempt: the hosts in their order, then on_connect
      connect.py    from a name or a path to a connected socket, with its options
        made_socket.py    what socket_factory gives
        race.py     the race of the addresses of one name
      tunnel.py     a socket through a SOCKS or HTTP proxy
        http_connect.py   the words of CONNECT, and the errors of a proxy
        tls_tunnel.py     TLS to the proxy, and CONNECT inside of it
      handshake.py  from a socket to a connection: TLS, the pin, STARTTLS
        decoded_once.py   what aiofastnet decodes of a certificate is kept
        steady_loop.py    the loop as aiofastnet needs it: uvloop's readers, a server's log
serve.py            serve(): a client for each connection that is accepted
  listen.py         from a host or a path to the sockets that listen there
  given.py          a client for a connection that others have made
reconnect.py        only with `reconnect`: the task that connects again, the events of the state
  pending.py        what answers in both directions between two connections
  state.py          the client's state, the tasks that wait for its change, on_state
  heartbeat.py      asks a silent peer
"""
