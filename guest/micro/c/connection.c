#include "connection.h"
#include "credit.h"
#include "agent.h"
#include "exec.h"
#include "frame.h"
#include "memory.h"
#include "memory_layout.h"
#include "service.h"

#define CHAINS 256
#define FIRST_LOCAL_PORT 0x10000
LARGE static struct connection table[CONNECTIONS];
static struct connection *chains[CHAINS];
static struct connection *free_list;
HOT static u32 table_used;
HOT static struct connection nobody; /* `recent` before the first packet */
HOT static struct connection *recent = &nobody;
HOT static u32 next_local_port = FIRST_LOCAL_PORT;

static struct connection console_connection = {
    .state = STATE_OPEN, .kind = KIND_CONSOLE, .peer_buf_alloc = ~0u};

static struct connection *connection_console(void) { return &console_connection; }

static struct connection **chain_of(u64 ports) { return &chains[(ports ^ ports >> 32) % CHAINS]; }

static struct connection *lookup(u64 ports)
{
    struct connection *c = *chain_of(ports);

    while (c != NULL && c->ports != ports) {
        c = c->next;
    }
    return c;
}

static struct connection *allocate(u64 ports, enum connection_kind kind,
                                   enum connection_state state)
{
    struct connection **chain = chain_of(ports);
    struct connection *c = free_list;

    if (c != NULL) {
        free_list = c->next;
    } else if (table_used < CONNECTIONS) {
        c = &table[table_used++];
    } else {
        return NULL;
    }
    clear(c, __builtin_offsetof(struct connection, inline_frame) / 8);
    c->ports = ports;
    c->kind = kind;
    c->state = state;
    c->next = *chain;
    *chain = c;
    return c;
}

/* Sends a packet without payload on behalf of ports that may have no connection. */
static NOINLINE void send_bare(u64 ports, u32 op, u32 flags, u32 fwd_cnt)
{
    vsock_send(vsock_slot(), ports >> 32 | ports << 32, op, flags, 0, BUF_ALLOC, fwd_cnt);
}

static void send_control(struct connection *c, u32 op, u32 flags)
{
    c->advertised = c->fwd_cnt;
    send_bare(c->ports, op, flags, c->fwd_cnt);
}

/* Ends a connection that the host does not know any more. */
static void drop(struct connection *c)
{
    struct connection **at = chain_of(c->ports);
    bool refused = c->state == STATE_CONNECTING;

    while (*at != c) {
        at = &(*at)->next;
    }
    *at = c->next;
    credit_release(c);
    c->ports = ~0ul;
    c->state = STATE_FREE;
    switch (c->kind) {
    case KIND_COMMAND:
        exec_abandon(c);
        break;
    case KIND_CONTROL:
        agent_control_lost();
        break;
    case KIND_CLIENT:
        service_client_closed(c, refused);
        break;
    default:
        break;
    }
    c->next = free_list;
    free_list = c;
}

static void connection_reset(struct connection *c)
{
    send_bare(c->ports, OP_RESET, 0, c->fwd_cnt);
    drop(c);
}

static struct connection *connection_dial(u32 port, enum connection_kind kind)
{
    struct connection *c;
    u64 ports;

    do {
        ports = port | (u64)next_local_port << 32;
        if (++next_local_port == ~0u) {
            next_local_port = FIRST_LOCAL_PORT;
        }
    } while (lookup(ports) != NULL);
    c = allocate(ports, kind, STATE_CONNECTING);
    if (c != NULL) {
        send_control(c, OP_REQUEST, 0);
    }
    return c;
}

static void connection_close(struct connection *c)
{
    if (c->backlog_length != 0) {
        c->flags |= FLAG_CLOSE_WHEN_SENT;
    } else if (c->state == STATE_OPEN) {
        c->state = STATE_CLOSING;
        send_control(c, OP_SHUTDOWN, SHUTDOWN_RECEIVE | SHUTDOWN_SEND);
    }
}

/* A packet that belongs to no connection. */
static COLD void receive_unknown(const struct packet *packet)
{
    u32 port = (u32)(packet->ports >> 32);
    struct connection *c = NULL;
    struct connection *owner = NULL;

    if (packet->op == OP_RESET) {
        return;
    }
    if (packet->op == OP_REQUEST && packet->type == PACKET_STREAM &&
        packet->source_cid == HOST_CID &&
        (port == AGENT_PORT || (owner = service_listener(port)) != NULL)) {
        c = allocate(packet->ports, owner == NULL ? KIND_COMMAND : KIND_ECHO, STATE_OPEN);
    }
    if (c == NULL) {
        send_bare(packet->ports, OP_RESET, 0, 0);
        return;
    }
    c->partner = owner;
    c->peer_buf_alloc = packet->buf_alloc;
    c->peer_fwd_cnt = packet->fwd_cnt;
    send_control(c, OP_RESPONSE, 0);
}

/* The host will send no more, or take no more. */
static void receive_shutdown(struct connection *c, u32 flags)
{
    c->flags |= flags & (SHUTDOWN_RECEIVE | SHUTDOWN_SEND);
    if ((c->flags & FLAG_PEER_RECEIVES_NOT) != 0 && (c->flags & FLAG_PEER_SENDS_NOT) != 0) {
        /* Both: a reset completes it (virtio 1.3 section 5.10.6.5), once a client has printed. */
        if (c->kind == KIND_CLIENT && c->state == STATE_OPEN) {
            service_client_end(c);
        }
        connection_reset(c);
        return;
    }
    if ((c->flags & FLAG_PEER_RECEIVES_NOT) != 0 && c->kind != KIND_CLIENT) {
        connection_reset(c); /* these have nothing else to do than to answer */
        return;
    }
    if ((c->flags & FLAG_PEER_SENDS_NOT) == 0 || c->state != STATE_OPEN) {
        return;
    }
    switch (c->kind) {
    case KIND_COMMAND:
        if (c->exec == EXEC_NONE) {
            connection_close(c);
        }
        break;
    case KIND_CLIENT:
        service_client_end(c);
        connection_close(c);
        break;
    default:
        connection_close(c);
        break;
    }
}

static COLD void receive_control(struct connection *c, const struct packet *packet)
{
    if (c->state == STATE_FREE) {
        return;
    }
    switch (packet->op) {
    case OP_RESPONSE:
        if (c->state != STATE_CONNECTING) {
            connection_reset(c);
            break;
        }
        c->state = STATE_OPEN;
        if (c->kind == KIND_CONTROL) {
            agent_control_open(c);
        } else {
            service_client_open(c);
        }
        break;
    case OP_RESET:
        drop(c);
        break;
    case OP_SHUTDOWN:
        receive_shutdown(c, packet->flags);
        break;
    case OP_CREDIT_UPDATE:
        break;
    case OP_CREDIT_REQUEST:
        send_control(c, OP_CREDIT_UPDATE, 0);
        break;
    default: /* among them OP_REQUEST for ports that are in use */
        connection_reset(c);
        break;
    }
}

/* A fork is told of its life by itself: the whole answer in one step, since the host waits. */
INLINE bool receive_news(struct connection *c, const struct packet *packet)
{
    const u32 answer = FRAME_HEADER + 8;
    u32 slot;
    u8 *frame;

    if (packet->length != FRAME_HEADER + FRAME_LIFE_LENGTH ||
        !frame_is_life(packet->data, packet->length) || !connection_has_credit(c, answer)) {
        return false;
    }
    agent_life(packet->data + FRAME_HEADER);
    c->fwd_cnt += packet->length; /* which the answer tells */
    slot = vsock_slot();
    frame = vsock_slot_data(slot);
    frame_header(frame, 8, FRAME_LIFE_DONE, load64(packet->data + 8));
    store64(frame + FRAME_HEADER, load64(packet->data + FRAME_HEADER)); /* the epoch */
    connection_transmit(c, slot, answer);
    return true;
}

/* Everything but a command in a single packet for a connection that is waiting for one. */
static NOINLINE void receive(struct connection *c, const struct packet *packet)
{
    u32 length = packet->length;

    if (packet->op != OP_DATA) {
        receive_control(c, packet);
    } else if (load32(&c->state) == IDLE_CONTROL && receive_news(c, packet)) {
        return;
    } else if (c->kind == KIND_ECHO) {
        if (c->state == STATE_OPEN) {
            connection_echo(c, packet->data, length);
        }
    } else {
        c->fwd_cnt += length;
        if (c->state != STATE_OPEN) {
            return;
        }
        if (c->kind == KIND_CLIENT) {
            service_client_data(c, packet->data, length);
        } else {
            frame_bytes(c, packet->data, length);
        }
    }
    if (c->backlog_length != 0 && c->state == STATE_OPEN) {
        credit_flush(c);
    }
    if (c->fwd_cnt - c->advertised >= BUF_ALLOC / 2 && c->state == STATE_OPEN) {
        send_control(c, OP_CREDIT_UPDATE, 0);
    }
}

/* Runs the command at an offset in the packet's data. */
INLINE void run_command(struct connection *c, const struct packet *packet, u32 offset)
{
    const u8 *frame = packet->data + offset;

    c->fwd_cnt += packet->length; /* which the command's answer tells */
    exec_run(c, load64(frame + 8), frame + FRAME_HEADER, packet->length - offset - FRAME_HEADER);
}

/* After a restore, the news of it rides ahead of the first command. */
static NOINLINE void receive_life(struct connection *c, const struct packet *packet)
{
    const u32 life = FRAME_HEADER + FRAME_LIFE_LENGTH;

    if (frame_is_command(packet->data + life, packet->length - life)) {
        agent_life(packet->data + FRAME_HEADER);
        run_command(c, packet, life);
    } else {
        receive(c, packet);
    }
}

INLINE void connections_receive(const struct packet *packet)
{
    struct connection *c = recent;

    if (unlikely(c->ports != packet->ports)) {
        c = lookup(packet->ports);
        if (c == NULL) {
            receive_unknown(packet);
            return;
        }
        recent = c;
    }
    c->peer_buf_alloc = packet->buf_alloc;
    c->peer_fwd_cnt = packet->fwd_cnt;
    if (likely(packet->op == OP_DATA && load32(&c->state) == IDLE_COMMAND)) {
        if (likely(frame_is_command(packet->data, packet->length))) {
            run_command(c, packet, 0);
            return;
        }
        if (frame_is_life(packet->data, packet->length)) {
            receive_life(c, packet);
            return;
        }
    }
    receive(c, packet);
}

static void connections_each(void (*visit)(struct connection *c, void *context), void *context)
{
    for (u32 i = 0; i < table_used; i++) {
        if (table[i].state != STATE_FREE) {
            visit(&table[i], context);
        }
    }
}

static void drop_one(struct connection *c, void *context)
{
    (void)context;
    drop(c);
}

static void connections_transport_reset(void) { connections_each(drop_one, NULL); }
