#include "service.h"
#include "exec.h"
#include "frame.h"
#include "memory.h"
#include "memory_layout.h"
#include "output.h"

#define LISTENERS 64

static struct {
    u32 port;
    struct connection *command;
} listeners[LISTENERS];

static struct connection *service_listener(u32 port)
{
    for (u32 i = 0; i < LISTENERS; i++) {
        if (listeners[i].command != NULL && listeners[i].port == port) {
            return listeners[i].command;
        }
    }
    return NULL;
}

static void service_print_ports(void)
{
    for (u32 i = 0; i < LISTENERS; i++) {
        if (listeners[i].command != NULL) {
            output_text(", ");
            output_decimal(listeners[i].port);
        }
    }
}

static bool service_listen(struct connection *command, u32 port)
{
    if (port == AGENT_PORT || service_listener(port) != NULL) {
        return false;
    }
    for (u32 i = 0; i < LISTENERS; i++) {
        if (listeners[i].command == NULL) {
            listeners[i].port = port;
            listeners[i].command = command;
            command->exec = EXEC_SERVE;
            return true;
        }
    }
    return false;
}

static void reset_accepted(struct connection *c, void *command)
{
    if (c->kind == KIND_ECHO && c->partner == command) {
        connection_reset(c);
    }
}

static void service_stop(struct connection *command)
{
    for (u32 i = 0; i < LISTENERS; i++) {
        if (listeners[i].command == command) {
            listeners[i].command = NULL;
        }
    }
    connections_each(reset_accepted, command);
}

/* The line to send, and later the reply as far as it has come, lie in the command's exec_block;
 * argument[0] is their length. */
static bool service_connect(struct connection *command, u32 port, const struct word *text, u32 count)
{
    struct connection *client;
    u8 *at;

    command->exec_block = at = block_allocate();
    if (at == NULL) {
        return false;
    }
    client = connection_dial(port, KIND_CLIENT);
    if (client == NULL) {
        block_free(at);
        command->exec_block = NULL;
        return false;
    }
    for (u32 i = 0; i < count; i++) {
        if (i != 0) {
            *at++ = ' ';
        }
        copy(at, text[i].text, text[i].length);
        at += text[i].length;
    }
    *at++ = '\n';
    command->argument[0] = (u64)(at - command->exec_block);
    client->partner = command;
    command->partner = client;
    command->exec = EXEC_CLIENT;
    return true;
}

static void service_client_open(struct connection *client)
{
    struct connection *command = client->partner;
    const u8 *line = command->exec_block;
    u64 left = command->argument[0];

    command->argument[0] = 0;
    while (left != 0 && client->state == STATE_OPEN) {
        u32 some = left < SLOT_PAYLOAD ? (u32)left : (u32)SLOT_PAYLOAD;
        u32 slot = vsock_slot();
        copy(vsock_slot_data(slot), line, some);
        connection_send(client, slot, some);
        line += some;
        left -= some;
    }
}

/* Separates the two connections; what happens to the client does not concern the command now. */
static struct connection *part(struct connection *client)
{
    struct connection *command = client->partner;

    client->partner = NULL;
    if (command != NULL) {
        command->partner = NULL;
    }
    return command;
}

/* Prints the reply and ends the command. */
static void client_answer(struct connection *command)
{
    exec_print(command);
    output_bytes(command->exec_block, command->argument[0]);
    output_bytes("\n", 1);
    exec_finish(command, 0);
}

static void client_fail(struct connection *command, const char *why)
{
    exec_print(command);
    output_kind(FRAME_STDERR);
    output_text(why);
    exec_finish(command, 1);
}

static void service_client_data(struct connection *client, const u8 *data, u32 length)
{
    struct connection *command = client->partner;
    const u8 *newline = find(data, data + length, '\n');
    u64 taken = (u64)(newline - data);

    if (command == NULL) {
        return;
    }
    if (taken > BLOCK_SIZE - command->argument[0]) {
        part(client);
        connection_reset(client);
        client_fail(command, "connect: the reply is too long\n");
        return;
    }
    copy(command->exec_block + command->argument[0], data, taken);
    command->argument[0] += taken;
    if (newline != data + length) {
        part(client);
        connection_close(client);
        client_answer(command);
    }
}

static void service_client_end(struct connection *client)
{
    struct connection *command = part(client);

    if (command == NULL) {
        return;
    }
    if (command->argument[0] != 0) {
        client_answer(command);
    } else {
        client_fail(command, "connect: closed without a reply\n");
    }
}

static void service_client_closed(struct connection *client, bool refused)
{
    struct connection *command = part(client);

    if (command == NULL) {
        return;
    }
    client_fail(command, refused ? "connect: refused\n" : "connect: reset\n");
}

static void service_client_abandon(struct connection *command)
{
    struct connection *client = command->partner;

    if (client != NULL) {
        part(client);
        connection_reset(client);
    }
}
