"""Questions to the database: `AnalyticsReader` has each as a method.

A subject is a ``.sql`` file of named blocks and a module of functions that return structs.
"""

from asgi_analytics.reading.question import QUESTIONS, Question, question
from asgi_analytics.reading.reader import AnalyticsReader, Answered, Meta
from asgi_analytics.reading.steps import Filter, Step

__all__ = ["QUESTIONS", "AnalyticsReader", "Answered", "Filter", "Meta", "Question", "Step", "question"]
