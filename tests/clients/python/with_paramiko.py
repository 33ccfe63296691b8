import os
import sys
import threading

import paramiko

from ask import options


def pump(read, write):
    while data := read(32768):
        write(data)


def send_input(channel):
    try:
        pump(lambda most: os.read(0, most), channel.sendall)
        channel.shutdown_write()
    except OSError:
        pass  # the program has ended


def send_signal(channel, name):
    message = paramiko.Message()
    message.add_byte(b"\x62")  # SSH_MSG_CHANNEL_REQUEST
    message.add_int(channel.remote_chanid)
    message.add_string("signal")
    message.add_boolean(False)
    message.add_string(name)
    channel.get_transport()._send_user_message(message)


def close_beside(channel, message, close=paramiko.Channel._handle_close):
    # paramiko answers a close in the thread that reads. While it changes keys that thread then waits, for half a minute,
    # for what only it could read; RFC 4253 section 7.1 lets a server close just then, before it has heard of the change.
    threading.Thread(target=close, args=(channel, message), daemon=True).start()


paramiko.Transport._channel_handler_table[97] = close_beside  # SSH_MSG_CHANNEL_CLOSE


def main(ask):
    client = paramiko.SSHClient()
    client.load_host_keys(ask.known_hosts)
    key = paramiko.Ed25519Key.from_private_key_file(ask.key)
    client.connect("127.0.0.1", ask.port, ask.user, pkey=key, look_for_keys=False, allow_agent=False)
    if ask.rekey:
        client.get_transport().packetizer.REKEY_BYTES = ask.rekey
    channel = client.get_transport().open_session()
    if ask.pty:
        channel.get_pty(os.environ["TERM"], 80, 24)
    if ask.command is None:
        channel.invoke_shell()
    else:
        channel.exec_command(ask.command)
    errors = threading.Thread(target=pump, args=(channel.recv_stderr, sys.stderr.buffer.write))
    errors.start()
    if ask.signal:
        sys.stdout.buffer.write(channel.recv(100))
        send_signal(channel, ask.signal)
    else:
        threading.Thread(target=send_input, args=(channel,), daemon=True).start()
    pump(channel.recv, lambda data: (sys.stdout.buffer.write(data), sys.stdout.flush()))
    errors.join()
    status = channel.recv_exit_status()
    sys.stderr.flush()
    # Not sys.exit: a thread may wait for input that nobody gives.
    os._exit(status if status >= 0 else 255)


main(options())
