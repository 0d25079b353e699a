"""`/v1/responses` and `/v1/conversations`: wire objects, what is read (convert) and written (objects, events), routes.

The service under the routes knows no HTTP: service, turn, jobs, seal.
"""
