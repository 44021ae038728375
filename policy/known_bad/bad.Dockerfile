FROM python:latest
RUN curl https://example.com/install.sh | sh
RUN apt-get install -y git
USER root
