/* Sending within the credit that the host gives (virtio 1.3 section 5.10.6.3): what exceeds it waits
 * in a block, and what was echoed is acknowledged only when it has gone. */
#pragma once
#include "connection.h"

/* Sends what waits, as far as the credit goes. */
static NOINLINE void credit_flush(struct connection *c);
/* Gives back the blocks of a connection that ends. */
static void credit_release(struct connection *c);
