// The straightforward relay on uWebSockets: it assembles each message and sends it on. It runs until it is killed.
//
// The library comes with PyPI's `socketify`. The declarations below are the part of its C interface that this file uses.

#include <cstdint>
#include <cstdio>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

extern "C" {
struct uws_app_s;
struct uws_req_s;
struct uws_res_s;
struct uws_socket_context_s;
struct uws_websocket_s;
struct us_listen_socket_t;
struct us_socket_context_options_t {
    const char *key_file_name, *cert_file_name, *passphrase, *dh_params_file_name, *ca_file_name, *ssl_ciphers;
    int ssl_prefer_low_memory_usage;
};
struct uws_app_listen_config_t {
    int port;
    const char *host;
    int options;
};
typedef void (*uws_listen_handler)(us_listen_socket_t *, uws_app_listen_config_t, void *);
struct uws_socket_behavior_t {
    int compression;
    unsigned int max_payload_length;
    unsigned short idle_timeout;
    unsigned int max_backpressure;
    bool close_on_backpressure_limit;
    bool reset_idle_timeout_on_send;
    bool send_pings_automatically;
    unsigned short max_lifetime;
    void (*upgrade)(uws_res_s *, uws_req_s *, uws_socket_context_s *, void *);
    void (*open)(uws_websocket_s *, void *);
    void (*message)(uws_websocket_s *, const char *, size_t, int opcode, void *);
    void (*drain)(uws_websocket_s *, void *);
    void (*ping)(uws_websocket_s *, const char *, size_t, void *);
    void (*pong)(uws_websocket_s *, const char *, size_t, void *);
    void (*close)(uws_websocket_s *, int code, const char *, size_t, void *);
    void (*subscription)(uws_websocket_s *, const char *, size_t, int, int, void *);
};
uws_app_s *uws_create_app(int ssl, us_socket_context_options_t);
void uws_ws(int ssl, uws_app_s *, const char *pattern, uws_socket_behavior_t, void *);
void uws_app_listen_with_config(int ssl, uws_app_s *, uws_app_listen_config_t, uws_listen_handler, void *);
int us_socket_local_port(int ssl, us_listen_socket_t *);
void uws_app_run(int ssl, uws_app_s *);
size_t uws_req_get_header(uws_req_s *, const char *name, size_t, const char **value);
size_t uws_req_get_query(uws_req_s *, const char *key, size_t, const char **value);
void uws_res_upgrade(int ssl, uws_res_s *, void *data, const char *key, size_t, const char *protocol, size_t,
                     const char *extensions, size_t, uws_socket_context_s *);
void *uws_ws_get_user_data(int ssl, uws_websocket_s *);
int uws_ws_send(int ssl, uws_websocket_s *, const char *, size_t, int opcode);
void uws_ws_end(int ssl, uws_websocket_s *, int code, const char *, size_t);
}

namespace {

constexpr int PLAIN = 0;

struct Side {
    std::string code;
    uws_websocket_s *socket = nullptr;
    Side *peer = nullptr;
    // Messages that arrived before the peer.
    std::vector<std::pair<std::string, int>> held;
};

std::unordered_map<std::string, Side *> waiting;

Side &side(uws_websocket_s *socket) { return *static_cast<Side *>(uws_ws_get_user_data(PLAIN, socket)); }

std::string header(uws_req_s *request, const std::string &name) {
    const char *value = "";
    const size_t length = uws_req_get_header(request, name.data(), name.size(), &value);
    return std::string(value, length);
}

void upgrade(uws_res_s *response, uws_req_s *request, uws_socket_context_s *context, void *) {
    const char *code = "";
    const size_t length = uws_req_get_query(request, "pair", 4, &code);
    const std::string key = header(request, "sec-websocket-key");
    Side *side = new Side;
    side->code.assign(code, length);
    uws_res_upgrade(PLAIN, response, side, key.data(), key.size(), "", 0, "", 0, context);
}

void open(uws_websocket_s *socket, void *) {
    Side &second = side(socket);
    second.socket = socket;
    const auto found = waiting.find(second.code);
    if (found == waiting.end()) {
        waiting.emplace(second.code, &second);
        return;
    }
    Side &first = *found->second;
    waiting.erase(found);
    first.peer = &second;
    second.peer = &first;
    for (const auto &[message, opcode] : first.held) {
        uws_ws_send(PLAIN, socket, message.data(), message.size(), opcode);
    }
    first.held.clear();
}

void message(uws_websocket_s *socket, const char *bytes, size_t length, int opcode, void *) {
    Side &from = side(socket);
    if (from.peer) {
        uws_ws_send(PLAIN, from.peer->socket, bytes, length, opcode);
    } else {
        from.held.emplace_back(std::string(bytes, length), opcode);
    }
}

void close(uws_websocket_s *socket, int, const char *, size_t, void *) {
    Side *gone = &side(socket);
    if (gone->peer) {
        gone->peer->peer = nullptr;
        uws_ws_end(PLAIN, gone->peer->socket, 1000, "", 0);
    } else if (const auto found = waiting.find(gone->code); found != waiting.end() && found->second == gone) {
        waiting.erase(found);
    }
    delete gone;
}

void listening(us_listen_socket_t *socket, uws_app_listen_config_t, void *) {
    if (socket) {
        std::printf("ws://127.0.0.1:%d \n", us_socket_local_port(PLAIN, socket));
        std::fflush(stdout);
    }
}

} // namespace

int main() {
    uws_app_s *app = uws_create_app(PLAIN, {});
    uws_socket_behavior_t behavior = {};
    behavior.max_payload_length = 64 << 20;
    // Unlimited: a message must not be lost because its reader is slow. Clients of the benchmark answer no pings.
    behavior.max_backpressure = 0;
    behavior.idle_timeout = 0;
    behavior.upgrade = upgrade;
    behavior.open = open;
    behavior.message = message;
    behavior.close = close;
    uws_ws(PLAIN, app, "/*", behavior, nullptr);
    uws_app_listen_with_config(PLAIN, app, {0, "127.0.0.1", 0}, listening, nullptr);
    uws_app_run(PLAIN, app);
}
