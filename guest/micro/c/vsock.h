/* virtio socket device (virtio 1.3 section 5.10): its rings and packets. What packets mean for a
 * connection is in connection.c.
 *
 * A packet to send is built in place, in one of TX_SLOTS buffers; a payload that is already in
 * memory (an echoed packet) can be sent from there. Completed slots are collected when they are
 * needed, without interrupts. Received packets are handed over in the buffer they came in, which
 * goes back to the device afterwards. */
#pragma once
#include "types.h"

struct connection;
struct word;

enum packet_op {
    OP_REQUEST = 1,
    OP_RESPONSE = 2,
    OP_RESET = 3,
    OP_SHUTDOWN = 4,
    OP_DATA = 5,
    OP_CREDIT_UPDATE = 6,
    OP_CREDIT_REQUEST = 7,
};

/* Flags of OP_SHUTDOWN, by the sender's side. */
#define SHUTDOWN_RECEIVE 1
#define SHUTDOWN_SEND 2

#define HOST_CID 2

/* struct virtio_vsock_hdr. */
struct packet {
    u64 source_cid;
    u64 destination_cid;
    u64 ports;        /* source, then destination: 32 bits each */
    u32 length;
    u16 type;
    u16 op;
    u32 flags;
    u32 buf_alloc;
    u32 fwd_cnt;
    u8 data[];
} __attribute__((packed, aligned(4)));

#define PACKET_HEADER 44
#define PACKET_STREAM 1
/* Payload that a slot holds. */
#define SLOT_PAYLOAD (PAGE_SIZE - PACKET_HEADER)

static void vsock_init(u64 base);
/* Handles what has arrived. */
static void vsock_interrupt(void);

/* A free slot; waits for the device when all are in flight. */
INLINE u32 vsock_slot(void);
/* Gives back a slot that was not sent. */
static void vsock_slot_release(u32 slot);
/* Where the payload of a slot begins. */
static u8 *vsock_slot_data(u32 slot);
/* Sends a slot with `length` bytes of payload in it. `ports` has the guest's port in its low half. */
INLINE void vsock_send(u32 slot, u64 ports, u32 op, u32 flags, u32 length, u32 buf_alloc,
                       u32 fwd_cnt);
/* Sends `length` bytes that lie in the packet that is being handled; its buffer stays out of the
 * device's hands until they are sent. */
static void vsock_send_received(u32 slot, u64 ports, const u8 *data, u32 length, u32 buf_alloc,
                                u32 fwd_cnt);
/* Sends `start` bytes of payload in a slot and then `length` bytes that never change. */
static void vsock_send_constant(u32 slot, u64 ports, u32 start, const u8 *data, u32 length,
                                u32 buf_alloc, u32 fwd_cnt);
/* Waits, for a bounded time, until the device has taken everything that was sent. */
static void vsock_drain(void);
