// One program or shell on 127.0.0.1, as `ssh` runs it, by libssh.
#include <getopt.h>
#include <libssh/callbacks.h>
#include <libssh/libssh.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int status = -1, shown, input;

static void fail(const char *what, ssh_session session)
{
    fprintf(stderr, "client: %s: %s\n", what, session ? ssh_get_error(session) : "");
    exit(255);
}

static void on_status(ssh_session session, ssh_channel channel, int code, void *data)
{
    (void)session, (void)channel, (void)data;
    status = code;
}

static void on_signal(ssh_session session, ssh_channel channel, const char *name, int core, const char *message,
                      const char *language, void *data)
{
    (void)session, (void)channel, (void)core, (void)message, (void)language, (void)data;
    fprintf(stderr, "client: signal %s\n", name);
    status = 255;
}

static ssh_session connect_as(int port, const char *user, const char *key_file, const char *known, uint64_t rekey)
{
    ssh_session session = ssh_new();
    ssh_key key = NULL;
    int config = 0;
    ssh_options_set(session, SSH_OPTIONS_PROCESS_CONFIG, &config);
    ssh_options_set(session, SSH_OPTIONS_HOST, "127.0.0.1");
    ssh_options_set(session, SSH_OPTIONS_PORT, &port);
    ssh_options_set(session, SSH_OPTIONS_USER, user);
    ssh_options_set(session, SSH_OPTIONS_KNOWNHOSTS, known);
    if (rekey && ssh_options_set(session, SSH_OPTIONS_REKEY_DATA, &rekey) != SSH_OK) fail("rekey", session);
    if (ssh_connect(session) != SSH_OK) fail("connect", session);
    if (ssh_session_is_known_server(session) != SSH_KNOWN_HOSTS_OK) fail("host key", session);
    if (ssh_pki_import_privkey_file(key_file, NULL, NULL, NULL, &key) != SSH_OK) fail("key", NULL);
    if (ssh_userauth_publickey(session, NULL, key) != SSH_AUTH_SUCCESS) fail("login", session);
    ssh_key_free(key);
    return session;
}

static int on_data(ssh_session session, ssh_channel channel, void *data, uint32_t length, int is_errors, void *user)
{
    (void)session, (void)channel, (void)user;
    for (uint32_t done = 0; done < length;) {
        ssize_t wrote = write(is_errors ? 2 : 1, (char *)data + done, length - done);
        if (wrote < 0) fail("output", NULL);
        done += wrote;
    }
    shown = 1;
    return length;
}

// The write waits for the channel's window, and shows what comes meanwhile.
static int on_input(socket_t fd, int events, void *channel)
{
    char buffer[32768];
    ssize_t got = read(fd, buffer, sizeof buffer);
    (void)events;
    if (got > 0) return ssh_channel_write(channel, buffer, got) == got ? 0 : -1;
    input = 0;
    return ssh_channel_send_eof(channel);
}

// By hand: libssh's connectors forget in 0.10 to wait for a slow reader of their output, and stall.
static void carry(ssh_session session, ssh_channel channel, const char *signal)
{
    ssh_event event = ssh_event_new();
    ssh_event_add_session(event, session);
    input = !signal;
    if (input) ssh_event_add_fd(event, 0, POLLIN, on_input, channel);
    while (ssh_channel_is_open(channel)) {
        int had = input;
        if (ssh_event_dopoll(event, 1000) == SSH_ERROR && ssh_channel_is_open(channel)) fail("connection", session);
        if (had && !input) ssh_event_remove_fd(event, 0);
        if (signal && shown) {
            if (ssh_channel_request_send_signal(channel, signal) != SSH_OK) fail("signal", session);
            signal = NULL;
        }
    }
}

int main(int argc, char **argv)
{
    static const struct option options[] = {
        {"port", 1, NULL, 'p'},  {"user", 1, NULL, 'u'}, {"key", 1, NULL, 'k'},    {"known-hosts", 1, NULL, 'h'},
        {"rekey", 1, NULL, 'r'}, {"pty", 0, NULL, 't'},  {"signal", 1, NULL, 's'}, {NULL, 0, NULL, 0}};
    const char *user = NULL, *key = NULL, *known = NULL, *signal = NULL;
    int port = 22, pty = 0, option;
    uint64_t rekey = 0;
    while ((option = getopt_long(argc, argv, "+", options, NULL)) != -1) {
        switch (option) {
        case 'p': port = atoi(optarg); break;
        case 'u': user = optarg; break;
        case 'k': key = optarg; break;
        case 'h': known = optarg; break;
        case 'r': rekey = strtoull(optarg, NULL, 10); break;
        case 't': pty = 1; break;
        case 's': signal = optarg; break;
        default: return 64;
        }
    }
    ssh_session session = connect_as(port, user, key, known, rekey);
    ssh_channel channel = ssh_channel_new(session);
    struct ssh_channel_callbacks_struct callbacks = {.channel_data_function = on_data,
                                                     .channel_exit_status_function = on_status,
                                                     .channel_exit_signal_function = on_signal};
    ssh_callbacks_init(&callbacks);
    ssh_add_channel_callbacks(channel, &callbacks);
    if (ssh_channel_open_session(channel) != SSH_OK) fail("channel", session);
    if (pty && ssh_channel_request_pty_size(channel, getenv("TERM"), 80, 24) != SSH_OK) fail("terminal", session);
    int asked = optind < argc ? ssh_channel_request_exec(channel, argv[optind]) : ssh_channel_request_shell(channel);
    if (asked != SSH_OK) fail("request", session);
    carry(session, channel, signal);
    return status < 0 ? 255 : status;
}
