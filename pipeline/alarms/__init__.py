"""Alarms: delivery of the messages of events to web servers, brokers, mail and messengers."""
