// SPDX-License-Identifier: GPL-2.0-only
/*
 * Copyright (C) 2026 The restrictedmem authors
 *
 * A 16550A serial port on stdin and stdout, with both of its interrupts.
 *
 * What the guest sends goes to a ring, which a thread of its own writes to stdout:
 * whoever reads that may be slow, or have stopped, and no vCPU waits for him. While
 * the ring is full the transmitter says that it is not empty. A guest that heeds
 * that loses nothing; what another one sends then is lost.
 *
 * What arrives waits in a ring for as long as the guest does not listen, that is, has
 * the receive interrupt off; so nothing typed or piped in during the boot is lost. A
 * terminal is read on when that ring is full, because of Ctrl-A x, and what is typed
 * then is lost.
 */
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

#include <linux/serial_reg.h>

#include "rmvm.h"

#define SERIAL_IRQ	4
#define CTRL_A		0x01
#define FIFO		16		/* that many bytes come at once */
#define FLUSH_SECONDS	5

static struct {
	pthread_mutex_t lock;		/* all of it; nobody who has it waits for others */
	pthread_cond_t room;		/* the ring is not full any more */
	pthread_cond_t output, no_output; /* there is some to be written, or none */
	struct vm *vm;
	u8 ier, lcr, mcr, scr, fcr;
	u8 dll, dlm;
	bool sent;			/* the interrupt for "transmitter empty" is due */
	bool full;			/* the guest sent more than there is room for */
	bool raised;			/* the line to the interrupt controllers */
	bool spoken;			/* something was sent, ever */
	u8 ring[4096];
	unsigned int head, count;
	u8 out[65536];
	unsigned int out_head, out_count;
} uart = {
	.lock = PTHREAD_MUTEX_INITIALIZER,
	.room = PTHREAD_COND_INITIALIZER,
	.output = PTHREAD_COND_INITIALIZER,
	.no_output = PTHREAD_COND_INITIALIZER,
};

static bool tty;			/* stdin is a terminal, and raw */
static struct termios saved_termios;

static bool may_receive(void)
{
	return uart.count && uart.ier & UART_IER_RDI;
}

static bool may_send(void)
{
	return uart.sent && uart.ier & UART_IER_THRI;
}

static void update_line(void)
{
	bool raise = may_receive() || may_send();
	struct kvm_irq_level irq = { .irq = SERIAL_IRQ, .level = raise };

	if (raise == uart.raised)
		return;
	uart.raised = raise;
	if (ioctl(uart.vm->fd, KVM_IRQ_LINE, &irq)) {
		fail_errno("KVM_IRQ_LINE");
		vm_end(uart.vm, END_ERROR);
	}
}

static u8 receive(void)
{
	u8 c;

	if (!may_receive())
		return 0;
	c = uart.ring[uart.head];
	uart.head = (uart.head + 1) % sizeof(uart.ring);
	uart.count--;
	pthread_cond_signal(&uart.room);
	return c;
}

/* Can the guest send? Linux looks once, and then sends what the FIFO takes. */
static bool transmitter_empty(void)
{
	return uart.out_count + FIFO <= sizeof(uart.out);
}

static void transmit(u8 c)
{
	/* In a loop to itself, the port is being probed. */
	if (!(uart.mcr & UART_MCR_LOOP)) {
		uart.spoken = true;
		if (uart.out_count < sizeof(uart.out))
			uart.out[(uart.out_head + uart.out_count++) % sizeof(uart.out)] = c;
		pthread_cond_signal(&uart.output);
	}
	uart.full = !transmitter_empty();
	uart.sent = !uart.full;
}

static u8 read_iir(void)
{
	u8 fifo = uart.fcr & UART_FCR_ENABLE_FIFO ? 0xc0 : 0;

	if (may_receive())
		return fifo | UART_IIR_RDI;
	if (may_send()) {
		uart.sent = false;	/* reading it is the acknowledgment */
		return fifo | UART_IIR_THRI;
	}
	return fifo | UART_IIR_NO_INT;
}

/* Modem status: all is well, or in a loop what the modem control says. */
static u8 read_msr(void)
{
	u8 mcr = uart.mcr;

	if (!(mcr & UART_MCR_LOOP))
		return UART_MSR_CTS | UART_MSR_DSR | UART_MSR_DCD;
	return (mcr & UART_MCR_RTS ? UART_MSR_CTS : 0) | (mcr & UART_MCR_DTR ? UART_MSR_DSR : 0) |
	       (mcr & UART_MCR_OUT1 ? UART_MSR_RI : 0) | (mcr & UART_MCR_OUT2 ? UART_MSR_DCD : 0);
}

static u8 read_register(unsigned int reg)
{
	bool divisor = uart.lcr & UART_LCR_DLAB;

	switch (reg) {
	case UART_RX:
		return divisor ? uart.dll : receive();
	case UART_IER:
		return divisor ? uart.dlm : uart.ier;
	case UART_IIR:
		return read_iir();
	case UART_LCR:
		return uart.lcr;
	case UART_MCR:
		return uart.mcr;
	case UART_LSR:
		return (transmitter_empty() ? UART_LSR_TEMT | UART_LSR_THRE : 0) |
		       (may_receive() ? UART_LSR_DR : 0);
	case UART_MSR:
		return read_msr();
	default:
		return uart.scr;
	}
}

static void write_register(unsigned int reg, u8 value)
{
	bool divisor = uart.lcr & UART_LCR_DLAB;

	switch (reg) {
	case UART_TX:
		if (divisor)
			uart.dll = value;
		else
			transmit(value);
		break;
	case UART_IER:
		if (divisor) {
			uart.dlm = value;
		} else {
			/* Switched on, the interrupt comes, if nothing is being sent. */
			if (value & ~uart.ier & UART_IER_THRI)
				uart.sent = !uart.full;
			uart.ier = value & 0xf;
		}
		break;
	case UART_FCR:
		uart.fcr = value;
		break;
	case UART_LCR:
		uart.lcr = value;
		break;
	case UART_MCR:
		uart.mcr = value;
		break;
	case UART_SCR:
		uart.scr = value;
		break;
	}
}

u8 serial_read(unsigned int reg)
{
	u8 value;

	pthread_mutex_lock(&uart.lock);
	value = read_register(reg);
	update_line();
	pthread_mutex_unlock(&uart.lock);
	return value;
}

void serial_write(unsigned int reg, u8 value)
{
	pthread_mutex_lock(&uart.lock);
	write_register(reg, value);
	update_line();
	pthread_mutex_unlock(&uart.lock);
}

/* Did the guest ever say anything? */
bool serial_has_spoken(void)
{
	bool spoken;

	pthread_mutex_lock(&uart.lock);
	spoken = uart.spoken;
	pthread_mutex_unlock(&uart.lock);
	return spoken;
}

static void arrived(u8 c)
{
	pthread_mutex_lock(&uart.lock);
	while (uart.count == sizeof(uart.ring) && !tty)
		pthread_cond_wait(&uart.room, &uart.lock);
	if (uart.count < sizeof(uart.ring))
		uart.ring[(uart.head + uart.count++) % sizeof(uart.ring)] = c;
	update_line();
	pthread_mutex_unlock(&uart.lock);
}

/*
 * Both ends may be non-blocking, since whom they are shared with can make them so.
 * Returns false if it was another error, from which nothing can be hoped for.
 */
static bool wait_for(int fd, short event)
{
	struct pollfd pollfd = { .fd = fd, .events = event };

	if (errno == EAGAIN)
		poll(&pollfd, 1, -1);
	return errno == EAGAIN || errno == EINTR;
}

/* Returns how much is done with: more than nothing. */
static size_t write_some(const u8 *from, size_t len)
{
	ssize_t n;

	do
		n = write(STDOUT_FILENO, from, len);
	while (n < 0 && wait_for(STDOUT_FILENO, POLLOUT));
	return n > 0 ? (size_t)n : len;
}

static void *output_thread(void *arg)
{
	size_t len;

	pthread_mutex_lock(&uart.lock);
	for (;;) {
		while (!uart.out_count)
			pthread_cond_wait(&uart.output, &uart.lock);
		len = sizeof(uart.out) - uart.out_head;
		if (len > uart.out_count)
			len = uart.out_count;
		/* Nobody else touches these bytes, or moves the head. */
		pthread_mutex_unlock(&uart.lock);
		len = write_some(uart.out + uart.out_head, len);
		pthread_mutex_lock(&uart.lock);
		uart.out_head = (uart.out_head + len) % sizeof(uart.out);
		uart.out_count -= len;
		if (uart.full && transmitter_empty()) {
			uart.full = false;
			uart.sent = true;
			update_line();
		}
		if (!uart.out_count)
			pthread_cond_broadcast(&uart.no_output);
	}
	return arg;
}

/* Waits until all is written that the guest has sent, but not for ever. */
void serial_flush(void)
{
	struct timespec until;

	clock_gettime(CLOCK_MONOTONIC, &until);
	until.tv_sec += FLUSH_SECONDS;
	pthread_mutex_lock(&uart.lock);
	while (uart.out_count &&
	       !pthread_cond_clockwait(&uart.no_output, &uart.lock, CLOCK_MONOTONIC, &until))
		;
	pthread_mutex_unlock(&uart.lock);
}

/* On a terminal, Ctrl-A x ends the VM, and Ctrl-A Ctrl-A is one Ctrl-A. */
static void *input_thread(void *arg)
{
	bool escape = false;
	u8 c;
	ssize_t n;

	(void)arg;
	while ((n = read(STDIN_FILENO, &c, 1)) != 0) {
		if (n < 0 && wait_for(STDIN_FILENO, POLLIN))
			continue;
		if (n < 0)
			break;
		if (tty && escape) {
			escape = false;
			if (c == 'x')
				vm_end(uart.vm, END_USER);
			else if (c == CTRL_A)
				arrived(c);
		} else if (tty && c == CTRL_A) {
			escape = true;
		} else {
			arrived(c);
		}
	}
	return NULL;
}

/* Makes the terminal what it was. */
void serial_exit(void)
{
	if (tty)
		tcsetattr(STDIN_FILENO, TCSANOW, &saved_termios);
}

int serial_init(struct vm *vm)
{
	struct termios raw;
	pthread_t thread;
	int ret;

	uart.vm = vm;
	tty = !tcgetattr(STDIN_FILENO, &saved_termios);
	if (tty) {
		raw = saved_termios;
		cfmakeraw(&raw);
		atexit(serial_exit);
		tcsetattr(STDIN_FILENO, TCSANOW, &raw);
	}
	/* They have no end of their own: the process takes them along. */
	ret = pthread_create(&thread, NULL, input_thread, NULL) ?:
	      pthread_create(&thread, NULL, output_thread, NULL);
	return ret ? fail("cannot start a thread: %s", strerror(ret)) : 0;
}
