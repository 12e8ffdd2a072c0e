// SPDX-License-Identifier: GPL-2.0-only
/*
 * Copyright (C) 2026 The restrictedmem authors
 *
 * A 16550A serial port on stdin and stdout, with both of its interrupts.
 *
 * Sending is instant: the transmitter is always empty. What arrives waits in
 * a ring for as long as the guest does not listen, that is, has the receive
 * interrupt off; so nothing typed or piped in during the boot is lost.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <termios.h>
#include <unistd.h>

#include <linux/serial_reg.h>

#include "rmvm.h"

#define SERIAL_IRQ	4
#define CTRL_A		0x01

static struct {
	pthread_mutex_t lock;		/* all of it */
	pthread_cond_t room;		/* the ring is not full any more */
	struct vm *vm;
	u8 ier, lcr, mcr, scr, fcr;
	u8 dll, dlm;
	bool sent;			/* the interrupt for "transmitter empty" is due */
	bool raised;			/* the line to the interrupt controllers */
	bool spoken;			/* something was sent, ever */
	u8 ring[64];
	unsigned int head, count;
} uart = {
	.lock = PTHREAD_MUTEX_INITIALIZER,
	.room = PTHREAD_COND_INITIALIZER,
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

static void transmit(u8 c)
{
	/* In a loop to itself, the port is being probed. */
	if (uart.mcr & UART_MCR_LOOP)
		return;
	uart.spoken = true;
	while (write(STDOUT_FILENO, &c, 1) < 0)
		if (errno != EINTR && errno != EAGAIN)
			break;
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
		return UART_LSR_TEMT | UART_LSR_THRE | (may_receive() ? UART_LSR_DR : 0);
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
		if (divisor) {
			uart.dll = value;
		} else {
			transmit(value);
			uart.sent = true;
		}
		break;
	case UART_IER:
		if (divisor) {
			uart.dlm = value;
		} else {
			/* Switched on, the interrupt comes: nothing is being sent. */
			if (value & ~uart.ier & UART_IER_THRI)
				uart.sent = true;
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
	while (uart.count == sizeof(uart.ring))
		pthread_cond_wait(&uart.room, &uart.lock);
	uart.ring[(uart.head + uart.count++) % sizeof(uart.ring)] = c;
	update_line();
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
		if (n < 0 && errno == EINTR)
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
	/* It has no end of its own: the process takes it along. */
	ret = pthread_create(&thread, NULL, input_thread, NULL);
	return ret ? fail("cannot start a thread: %s", strerror(ret)) : 0;
}
