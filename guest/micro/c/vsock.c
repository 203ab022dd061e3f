#include "vsock.h"
#include "connection.h"
#include "memory.h"
#include "virtio.h"

enum {
    RX_QUEUE,
    TX_QUEUE,
    EVENT_QUEUE,

    RX_BUFFERS = 32,
    TX_SLOTS = 16,
    TX_DESCRIPTORS = 2 * TX_SLOTS, /* slot i: 2i for the header, 2i + 1 for a payload elsewhere */
    EVENTS = 2,

    CONFIG_GUEST_CID = VIRTIO_CONFIG + 0,
    EVENT_TRANSPORT_RESET = 0,
    NOT_BORROWED = 0xff,
    BORROWED_CONSTANT = 0xfe, /* not from the RX ring */
};

#define RX_BUFFER_SIZE KIB(64)

LARGE static u8 rx_buffers[RX_BUFFERS][RX_BUFFER_SIZE];
LARGE static u8 tx_buffers[TX_SLOTS][PAGE_SIZE];
static u32 events[EVENTS];

/* The rings are laid down by the compiler: booting fills none. */
#define RX1(i) {(u64)rx_buffers[i], RX_BUFFER_SIZE, DESCRIPTOR_WRITE, 0}
#define RX4(i) RX1(i), RX1(i + 1), RX1(i + 2), RX1(i + 3)
#define RX16(i) RX4(i), RX4(i + 4), RX4(i + 8), RX4(i + 12)
#define ID4(i) (i), (i) + 1, (i) + 2, (i) + 3
#define ID16(i) ID4(i), ID4(i + 4), ID4(i + 8), ID4(i + 12)
#define TX1(i) {(u64)tx_buffers[i], PACKET_HEADER, 0, 2 * (i) + 1}, {0, 0, 0, 0}
#define TX4(i) TX1(i), TX1(i + 1), TX1(i + 2), TX1(i + 3)

HOT static VIRTQUEUE(RX_BUFFERS) rx = {
    .descriptors = {RX16(0), RX16(16)},
    .available = {.index = RX_BUFFERS, .ring = {ID16(0), ID16(16)}},
};
HOT static VIRTQUEUE(TX_DESCRIPTORS) tx = {
    .descriptors = {TX4(0), TX4(4), TX4(8), TX4(12)},
    .available = {.flags = AVAILABLE_NO_INTERRUPT, .used_event = 0xffff},
};
HOT static VIRTQUEUE(EVENTS) event = {
    .descriptors = {{(u64)&events[0], 8, DESCRIPTOR_WRITE, 0},
                    {(u64)&events[1], 8, DESCRIPTOR_WRITE, 0}},
    .available = {.index = EVENTS, .ring = {0, 1}},
};

HOT static struct virtio_device vsock;
HOT static u64 guest_cid;
HOT static u16 rx_seen;
HOT static u16 tx_seen;
HOT static u16 event_seen;
HOT static u32 tx_free = (1u << TX_SLOTS) - 1;
/* The RX buffer that a slot's payload lies in, or one of the two above. */
HOT static u8 tx_borrowed[TX_SLOTS] = {
    NOT_BORROWED, NOT_BORROWED, NOT_BORROWED, NOT_BORROWED, NOT_BORROWED, NOT_BORROWED,
    NOT_BORROWED, NOT_BORROWED, NOT_BORROWED, NOT_BORROWED, NOT_BORROWED, NOT_BORROWED,
    NOT_BORROWED, NOT_BORROWED, NOT_BORROWED, NOT_BORROWED,
};
HOT static u32 borrowed;   /* how many slots borrow */
HOT static u32 rx_current; /* the buffer being handled */
HOT static bool rx_kept;   /* a slot has borrowed it */
HOT static u16 rx_index;   /* the available index that is to be published */

static void vsock_init(u64 base)
{
    virtio_begin(&vsock, base, 0);
    if (vsock.event_idx) {
        tx.available.flags = 0;
    }
    VIRTIO_QUEUE(&vsock, RX_QUEUE, rx);
    VIRTIO_QUEUE(&vsock, TX_QUEUE, tx);
    VIRTIO_QUEUE(&vsock, EVENT_QUEUE, event);
    rx_index = RX_BUFFERS;
    guest_cid = mmio_read(base + CONFIG_GUEST_CID) |
                (u64)mmio_read(base + CONFIG_GUEST_CID + 4) << 32;
    virtio_ready(&vsock);
    mmio_write(base + VIRTIO_QUEUE_NOTIFY, RX_QUEUE);
    mmio_write(base + VIRTIO_QUEUE_NOTIFY, EVENT_QUEUE);
}


/* Puts a buffer back into the RX ring; publish_rx makes the device see it. */
INLINE void recycle(u32 buffer) { rx.available.ring[rx_index++ % RX_BUFFERS] = (u16)buffer; }

INLINE void publish_rx(void)
{
    if (likely(rx_index != rx.available.index)) {
        VIRTIO_PUBLISH(&vsock, RX_QUEUE, rx, rx_index); /* a full barrier */
    } else {
        full_barrier();
    }
}

/* Collects the slots that the device is done with. */
static void collect(void)
{
    u16 used = READ_ONCE(tx.used.index);

    for (; tx_seen != used; tx_seen++) {
        u32 slot = tx.used.ring[tx_seen % TX_DESCRIPTORS].id / 2 % TX_SLOTS;
        tx_free |= 1u << slot;
        if (tx_borrowed[slot] != NOT_BORROWED) {
            if (tx_borrowed[slot] != BORROWED_CONSTANT) {
                recycle(tx_borrowed[slot]);
            }
            tx_borrowed[slot] = NOT_BORROWED;
            tx.descriptors[2 * slot].flags = 0;
            borrowed--;
        }
    }
}

static NOINLINE void wait_for_slot(void)
{
    for (;;) {
        collect();
        if (tx_free != 0) {
            break;
        }
        VIRTIO_INTERRUPT_AFTER(&vsock, tx, tx_seen);
        if (tx_seen == READ_ONCE(tx.used.index)) {
            wait_for_interrupt();
            virtio_acknowledge(&vsock);
        }
    }
    VIRTIO_NO_INTERRUPT(&vsock, tx);
    irq_pending |= 1u << IRQ_VSOCK; /* it may have been for the RX queue */
}

INLINE u32 vsock_slot(void)
{
    u32 slot;

    if (unlikely(tx_free == 0)) {
        wait_for_slot();
    }
    slot = lowest_bit(tx_free);
    tx_free &= tx_free - 1;
    return slot;
}

static void vsock_slot_release(u32 slot) { tx_free |= 1u << slot; }

static u8 *vsock_slot_data(u32 slot) { return tx_buffers[slot] + PACKET_HEADER; }

INLINE void submit(u32 slot, u64 ports, u32 op, u32 flags, u32 length, u32 buf_alloc, u32 fwd_cnt)
{
    struct packet *packet = (struct packet *)tx_buffers[slot];
    u16 index = tx.available.index;

    packet->source_cid = guest_cid;
    packet->destination_cid = HOST_CID;
    packet->ports = ports;
    store64(&packet->length, length | (u64)PACKET_STREAM << 32 | (u64)op << 48);
    store64(&packet->flags, flags | (u64)buf_alloc << 32);
    packet->fwd_cnt = fwd_cnt;
    tx.available.ring[index % TX_DESCRIPTORS] = (u16)(2 * slot);
    VIRTIO_PUBLISH(&vsock, TX_QUEUE, tx, (u16)(index + 1));
}

INLINE void vsock_send(u32 slot, u64 ports, u32 op, u32 flags, u32 length, u32 buf_alloc,
                       u32 fwd_cnt)
{
    tx.descriptors[2 * slot].length = PACKET_HEADER + length;
    submit(slot, ports, op, flags, length, buf_alloc, fwd_cnt);
}

static void vsock_send_received(u32 slot, u64 ports, const u8 *data, u32 length, u32 buf_alloc,
                                u32 fwd_cnt)
{
    struct descriptor *d = &tx.descriptors[2 * slot];

    d[0].length = PACKET_HEADER;
    d[0].flags = DESCRIPTOR_NEXT;
    d[1].address = (u64)data;
    d[1].length = length;
    tx_borrowed[slot] = (u8)rx_current;
    borrowed++;
    rx_kept = true;
    submit(slot, ports, OP_DATA, 0, length, buf_alloc, fwd_cnt);
}

static void vsock_send_constant(u32 slot, u64 ports, u32 start, const u8 *data, u32 length,
                                u32 buf_alloc, u32 fwd_cnt)
{
    struct descriptor *d = &tx.descriptors[2 * slot];

    d[0].length = PACKET_HEADER + start;
    d[0].flags = DESCRIPTOR_NEXT;
    d[1].address = (u64)data;
    d[1].length = length;
    tx_borrowed[slot] = BORROWED_CONSTANT;
    borrowed++;
    submit(slot, ports, OP_DATA, 0, start + length, buf_alloc, fwd_cnt);
}

static void vsock_drain(void)
{
    for (u32 tries = 0; tries < 50000 && READ_ONCE(tx.used.index) != tx.available.index; tries++) {
        pause();
    }
}

/* The machine moved to another host side: no connection exists any more. */
static COLD void handle_events(void)
{
    while (event_seen != READ_ONCE(event.used.index)) {
        u32 id = event.used.ring[event_seen++ % EVENTS].id % EVENTS;
        bool reset = events[id] == EVENT_TRANSPORT_RESET;
        event.available.ring[event.available.index % EVENTS] = (u16)id;
        VIRTIO_PUBLISH(&vsock, EVENT_QUEUE, event, (u16)(event.available.index + 1));
        if (reset) {
            guest_cid = mmio_read(vsock.base + CONFIG_GUEST_CID) |
                        (u64)mmio_read(vsock.base + CONFIG_GUEST_CID + 4) << 32;
            connections_transport_reset();
        }
    }
    event.available.used_event = event_seen;
}

static void vsock_interrupt(void)
{
    virtio_acknowledge(&vsock);
    if (unlikely(event_seen != READ_ONCE(event.used.index))) {
        handle_events();
    }
    for (;;) {
        const struct used_element *element;
        const struct packet *packet;

        if (rx_seen == READ_ONCE(rx.used.index)) {
            rx.available.used_event = rx_seen;
            if (unlikely(borrowed != 0)) {
                collect();
            }
            publish_rx();
            if (rx_seen == READ_ONCE(rx.used.index)) {
                return;
            }
        }
        element = &rx.used.ring[rx_seen++ % RX_BUFFERS];
        rx_current = element->id % RX_BUFFERS;
        packet = (const struct packet *)rx_buffers[rx_current];
        rx_kept = false;
        /* The lengths are not checked: a device may write all of the guest's memory anyway. */
        connections_receive(packet);
        if (likely(!rx_kept)) {
            recycle(rx_current);
        }
    }
}
