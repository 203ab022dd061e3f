/* vsock connections: the table, their states, credit both ways, and what waits for credit. */
#pragma once
#include "timers.h"
#include "types.h"
#include "vsock.h"

#define AGENT_PORT 1024
/* More than this many connections at once are refused. */
#define CONNECTIONS 1024
/* What the host may send before the guest has taken it; a block holds it. */
#define BUF_ALLOC ((u32)KIB(128))

enum connection_state {
    STATE_FREE,
    STATE_CONNECTING, /* OP_REQUEST is sent */
    STATE_OPEN,
    STATE_CLOSING, /* OP_SHUTDOWN is sent; the host answers with a reset */
};

enum connection_kind {
    KIND_CONTROL, /* to the host's agent port: announces and asks */
    KIND_COMMAND, /* to the guest's agent port: runs commands */
    KIND_ECHO,    /* to a port of `echo-server` */
    KIND_CLIENT,  /* of `connect` */
    KIND_CONSOLE, /* no connection: a command from the command line */
};

/* What a command connection is busy with. */
enum exec_state {
    EXEC_NONE,
    EXEC_SLEEP,
    EXEC_SERVE,   /* echo-server */
    EXEC_CLIENT,  /* connect */
    EXEC_PRODUCE, /* has more output than may be sent at once */
    EXEC_BLOCK,   /* waits for the disk */
    EXEC_ENTROPY, /* waits for the first entropy */
    EXEC_FILE,    /* a file is coming in */
};

/* connection.flags. */
enum connection_flag {
    FLAG_PEER_RECEIVES_NOT = SHUTDOWN_RECEIVE,
    FLAG_PEER_SENDS_NOT = SHUTDOWN_SEND,
    FLAG_CLOSE_WHEN_SENT = 4,
    FLAG_BACKLOG = 8, /* something waits for credit */
    FLAG_PARTIAL = 16, /* a frame has arrived in part */
    FLAG_TRANSFER = 32, /* what is printed is a file for the host */
};

/* The first four bytes' value when a command connection may take a command. */
#define IDLE_COMMAND (STATE_OPEN | KIND_COMMAND << 8 | EXEC_NONE << 16)
/* The same for a control connection and the news of a life. */
#define IDLE_CONTROL (STATE_OPEN | KIND_CONTROL << 8 | EXEC_NONE << 16)

struct connection {
    /* As in a packet from the host: the host's port low, the guest's port high. */
    u64 ports;
    /* Four bytes that are compared at once with IDLE_COMMAND. */
    u8 state;
    u8 kind;
    u8 exec;
    u8 flags;

    u32 peer_buf_alloc;
    u32 peer_fwd_cnt;
    u32 sent;       /* bytes, modulo 2^32, as all counters of vsock */
    u32 fwd_cnt;    /* bytes that the guest has taken */
    u32 advertised; /* fwd_cnt as last told */

    /* Data that waits for credit, in a block. */
    u32 backlog_start;
    u32 backlog_length;
    u8 *backlog;

    /* A frame that arrived in part (frame.c). */
    u32 frame_have;
    u32 frame_need;
    u32 frame_skip;
    u8 *frame_block; /* when it does not fit inline_frame */

    /* The command that runs (exec.c). */
    u64 exec_id;
    u64 exec_start; /* time stamp */
    struct timer wake;
    struct timer timeout;
    u64 argument[3];
    u8 *exec_block;
    bool (*produce)(struct connection *c);
    /* The command's connection for KIND_ECHO and KIND_CLIENT; the client's for EXEC_CLIENT. */
    struct connection *partner;

    struct connection *next; /* in its hash chain, or among the free */
    u8 inline_frame[248];
};

_Static_assert(sizeof(struct connection) <= 512, "eight to a page");
_Static_assert(__builtin_offsetof(struct connection, inline_frame) % 8 == 0, "cleared in words");

/* From vsock.c. */
INLINE void connections_receive(const struct packet *packet);
static void connections_transport_reset(void);

/* A connection outside the table, for KIND_CONSOLE. */
static struct connection *connection_console(void);
/* Dials a port of the host; NULL when there are too many connections. */
static struct connection *connection_dial(u32 port, enum connection_kind kind);
/* Sends the `length` bytes of payload in a slot, or keeps them until there is credit. */
static void connection_send(struct connection *c, u32 slot, u32 length);
/* Whether a packet may be sent at once on an idle connection. */
INLINE bool connection_has_credit(const struct connection *c, u32 length)
{
    return c->sent + length - c->peer_fwd_cnt <= c->peer_buf_alloc;
}
/* How many bytes may be sent now. */
INLINE u32 connection_credit(const struct connection *c)
{
    u32 in_flight = c->sent - c->peer_fwd_cnt;

    return in_flight < c->peer_buf_alloc ? c->peer_buf_alloc - in_flight : 0;
}
/* Sends it. */
INLINE void connection_transmit(struct connection *c, u32 slot, u32 length)
{
    c->sent += length;
    c->advertised = c->fwd_cnt;
    vsock_send(slot, c->ports >> 32 | c->ports << 32, OP_DATA, 0, length, BUF_ALLOC, c->fwd_cnt);
}
/* Closes once everything is sent. */
static void connection_close(struct connection *c);
/* Closes at once, with a reset. */
static void connection_reset(struct connection *c);
/* Calls `visit` for every connection in the table that is not free. */
static void connections_each(void (*visit)(struct connection *c, void *context), void *context);

/* Echoes data (credit.c, as connection_send). */
static void connection_echo(struct connection *c, const u8 *data, u32 length);
/* Sends a packet without payload: on behalf of ports that may have no connection, or for one. */
static void send_bare(u64 ports, u32 op, u32 flags, u32 fwd_cnt);
static void send_control(struct connection *c, u32 op, u32 flags);
