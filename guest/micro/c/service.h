/* The two commands that use vsock themselves: `echo-server` and `connect`. */
#pragma once
#include "connection.h"
#include "types.h"

/* The command that listens on a port, or NULL. */
static struct connection *service_listener(u32 port);
/* Prints the ports on which commands listen, each after ", ". */
static void service_print_ports(void);
/* Listens on a port on behalf of a command; false when the port is taken or there are too many. */
static bool service_listen(struct connection *command, u32 port);
/* Stops listening; the connections are reset. */
static void service_stop(struct connection *command);

/* Dials a port of the host to send a line and read one; the command is EXEC_CLIENT from here on. */
static bool service_connect(struct connection *command, u32 port, const struct word *text,
                            u32 count);
static void service_client_open(struct connection *client);
static void service_client_data(struct connection *client, const u8 *data, u32 length);
/* The host sends no more. */
static void service_client_end(struct connection *client);
/* The connection is gone, or never came to be. */
static void service_client_closed(struct connection *client, bool refused);
/* The command is gone. */
static void service_client_abandon(struct connection *command);
